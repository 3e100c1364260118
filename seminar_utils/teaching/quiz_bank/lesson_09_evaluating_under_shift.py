"""Quiz of lesson 09: four ways to fool oneself, and what to do instead."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "A paper tries seven learning rates and reports the best one, by accuracy on the test set. Its gain over "
        "the published setting, on that test set,",
        (
            Option(
                "is a fair estimate, the test set being large",
                "A large set makes the error smaller, it does not make it fair: the best of several noisy "
                "numbers is too high.",
            ),
            Option(
                "can't be negative if the published setting is among the seven, whatever the method is worth",
                "The maximum is at least each of its members. So the sign of this gain says nothing; measure it "
                "on patients that did not choose.",
                right=True,
            ),
            Option("is too low, as each rate saw only a part", "Each rate saw all of the test set."),
            Option(
                "is fair after a bootstrap over the test images",
                "The bootstrap knows the luck of the images, not the luck of the choice.",
            ),
        ),
    ),
    Question(
        "A model is right in 20 of 100 on the new scanner, and in 99 of 100 after adaptation. First of all you",
        (
            Option("report a gain of 79 points", "Perhaps of a bug: such gains are rare in nature."),
            Option(
                "raise the learning rate, as there is room for more",
                "Before tuning a cure one should be sure of the disease.",
            ),
            Option(
                "check that pixels reach the model in the range, size and channel order that it was trained on",
                "Statistics measured on the batch undo a wrong scale, so adaptation looks best where the loader "
                "is wrong. Run the pipeline on the old scanner: it should give the old accuracy.",
                right=True,
            ),
            Option("take another seed", "A wrong range is wrong for every seed."),
        ),
    ),
    Question(
        "In clinic 1 nearly all patients have finding A, in clinic 2 nearly all have finding B. The accuracy of "
        "the same model falls from 0.95 to 0.40. What has changed for certain?",
        (
            Option(
                "the share of the findings",
                "Accuracy is the recalls weighted by prevalence: a model that likes to say A is excellent in "
                "clinic 1. Look at the recall of each class before you speak of a shift.",
                right=True,
            ),
            Option("the scanner", "It may be the same one: unequal recalls suffice."),
            Option("the model's skill", "Its recalls may be the same, number for number, in both clinics."),
            Option("the calibration", "It may change too, but these two numbers don't show it."),
        ),
    ),
    Question(
        "With one training seed the bootstrap over 10,000 test images says that method B beats A, p < 0.001. "
        "This shows",
        (
            Option(
                "that B is the better method",
                "For that you need networks from other seeds: the images know nothing about them.",
            ),
            Option(
                "that this network with B does better than this network with A on such patients",
                "What was resampled is what the claim is about: images. Whether another training would agree is "
                "another level, and more images never tell.",
                right=True,
            ),
            Option("nothing, one seed is never enough", "It is enough for a claim about this one network."),
            Option(
                "that B is better in 999 of 1000 hospitals",
                "All images came from one. No interval covers what was not varied.",
            ),
        ),
    ),
    Question(
        "You have six images of each of 40 patients. The bootstrap should draw",
        (
            Option("240 images", "Images of one patient agree: the interval comes out far too narrow."),
            Option("one image of each patient", "That wastes data; the interval would be honest but too wide."),
            Option(
                "40 patients, with all their images, with replacement",
                "The patient is what is independent. In this lesson's simulation the interval over images "
                "missed the truth far more often than it promised.",
                right=True,
            ),
            Option("6 images of 40 patients, each without replacement", "Then nothing varies at all."),
        ),
    ),
    Question(
        "The report card says: AUROC unchanged, specificity at the threshold fixed on validation far lower. "
        "The model",
        (
            Option(
                "has lost its skill to tell the patients apart", "The AUROC says that it still ranks them as well."
            ),
            Option(
                "ranks as before, but its scores have moved, so the old threshold cuts at another place",
                "A shift of all scores leaves ranks alone. Without labels of the new scanner nobody can move "
                "the threshold along, so the card fails it.",
                right=True,
            ),
            Option(
                "is fine, once the threshold is chosen on the new test labels",
                "That is the first of the four ways to fool oneself: no clinic has these labels beforehand.",
            ),
            Option("was evaluated with too few bootstrap draws", "Neither number depends on draws."),
        ),
    ),
)
