"""Quiz of lesson 00: numbers one may believe."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "A test set holds 90 healthy patients and 10 with a lesion. A model calls everybody healthy. "
        "Its accuracy and its balanced accuracy are",
        (
            Option("90% and 90%", "Balanced accuracy averages the recall of the classes: 100% and 0%."),
            Option(
                "90% and 50%",
                "Recall is 100% on the healthy and 0% on the sick; their mean is 50%, what a coin gets as well.",
                right=True,
            ),
            Option("50% and 90%", "The other way round: plain accuracy is what prevalence can buy."),
            Option("90% and 10%", "10% is the prevalence of the lesion, not a recall."),
        ),
    ),
    Question(
        "On 100 patients method A is right 84 times, method B 87 times. Each has a 95% interval some 14 points "
        "wide. What may you say?",
        (
            Option("B is better: 87 is more than 84.", "Another hundred patients could well turn that round."),
            Option(
                "They are equally good, as the intervals overlap.",
                "Not finding a difference is no proof "
                "of equality, and overlapping intervals can hide a paired difference.",
            ),
            Option(
                "Compare them patient by patient before you say anything.",
                "Both saw the same patients: "
                "an interval of the paired difference leaves out what is common to both.",
                right=True,
            ),
            Option(
                "Nothing ever, 100 patients are too few.",
                "A large paired difference shows with 100 patients too. It depends on the size of the difference.",
            ),
        ),
    ),
    Question(
        "The bootstrap interval of this lesson resamples the test images of ONE trained model. "
        "What does it not know about?",
        (
            Option("Which images happened to be in the test set", "Just this is what resampling imitates."),
            Option(
                "How the result changes with another training seed",
                "The model is fixed in every draw. Seeds need their own interval, from training again.",
                right=True,
            ),
            Option("The number of test images", "It does: fewer images, wider interval."),
            Option("How often the model is wrong", "That is the quantity it resamples."),
        ),
    ),
    Question(
        "The scanner dial of the phantoms is turned up, and the patients stay the same. What has shifted?",
        (
            Option("The labels", "Lesions keep their type, size and place."),
            Option(
                "The share of each disease",
                "Prevalence shift is another dial; here every patient is imaged again.",
            ),
            Option(
                "The appearance of an image, given its content",
                "Contrast, noise, blur and bias field change, the anatomy does not: an acquisition shift.",
                right=True,
            ),
            Option(
                "Nothing that a network notices",
                "Turn the dial: accuracy falls long before a person would hesitate.",
            ),
        ),
    ),
    Question(
        "You try twenty settings on the TEST set and report the best. What is wrong?",
        (
            Option(
                "The number reported is too optimistic",
                "The best of twenty is partly luck with these images. Choose on validation data, then test once.",
                right=True,
            ),
            Option("The number reported is too pessimistic", "Choosing the maximum can only push it up."),
            Option(
                "Nothing, as no weights were trained on the test set",
                "A choice made by a person with the test labels in view uses them all the same.",
            ),
            Option("Nothing, if the seeds are fixed", "A fixed seed makes the luck repeatable, not smaller."),
        ),
    ),
)
