"""Quiz of lesson 11: Tent, when it helps and when it harms."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "Which parameters does Tent move?",
        (
            Option(
                "All weights, with a small learning rate",
                "Then entropy could be lowered in many ways that forget the task.",
            ),
            Option(
                "Scale and shift of the normalisation layers",
                "Under 1% of a network: enough to re-aim "
                "the features, too little to rewrite them. The statistics come from the batch.",
                right=True,
            ),
            Option("The last linear layer", "That is what some other methods move; Tent leaves it alone."),
            Option("The running means and variances, by gradient", "Statistics are measured, not learnt."),
        ),
    ),
    Question(
        "A patient's probabilities are 0.6 healthy, 0.4 lesion, and the truth is lesion. A small step "
        "down the entropy of this one prediction makes the model",
        (
            Option(
                "more sure of healthy",
                "Entropy falls towards the NEAREST corner, and it knows no label: "
                "a wrong majority is strengthened.",
                right=True,
            ),
            Option("more sure of lesion", "Only a label could tell it so."),
            Option("less sure of both", "That would raise the entropy."),
            Option(
                "stay as it is, 0.6 being sure enough",
                "The gradient vanishes only at a corner or at equal probabilities.",
            ),
        ),
    ),
    Question(
        "In this lesson, most of the gain on the new scanner comes from",
        (
            Option(
                "minimising the entropy",
                "Look at the paired interval of Tent against BN adaptation: on this shift it contains zero.",
            ),
            Option(
                "normalising with the statistics of the batch",
                "BN adaptation alone, without any gradient, has most of it. Always report it beside Tent.",
                right=True,
            ),
            Option("labels of the new scanner", "There are none: that is the whole setting."),
            Option("a larger learning rate", "It moves faster, soon in a bad direction."),
        ),
    ),
    Question(
        "Patients come sorted by disease, one clinic after another. Batch statistics then",
        (
            Option(
                "are better, because a batch is uniform",
                "Uniform in class: what tells the classes apart is taken for a property of the scanner.",
            ),
            Option(
                "remove part of the very difference between classes",
                "Normalising a batch of one class "
                "centres away its signature, and no step down the entropy brings it back.",
                right=True,
            ),
            Option(
                "do not change, they are averages",
                "They are averages over this batch, and this batch is not like the others.",
            ),
            Option("are as good as the stored ones", "See the failure gallery: accuracy falls below the source."),
        ),
    ),
    Question(
        "During adaptation the mean entropy falls and falls. This tells you that",
        (
            Option("accuracy rises", "Not by itself: with a rate far too high both fall (part 6)."),
            Option(
                "the model is well calibrated",
                "It becomes surer; whether it is right as often as it is "
                "sure is another question, and usually it is not.",
            ),
            Option(
                "predictions become surer, rightly or wrongly",
                "So watch something else as well: the entropy "
                "of the predicted CLASSES warns of a collapse, without labels.",
                right=True,
            ),
            Option("the shift has gone", "The scanner is as it was."),
        ),
    ),
    Question(
        "Your scanner is used for one patient at a time and each answer is needed at once. A sound choice is",
        (
            Option(
                "Tent with batches of one",
                "Mean and variance of one image, and no averaging of the "
                "gradient: the worst column of the failure gallery.",
            ),
            Option(
                "stored statistics mixed with those of recent images, and an alarm",
                "A blend or a moving average keeps the estimate stable; the alarm says when to go back "
                "to the source model.",
                right=True,
            ),
            Option(
                "Tent with a learning rate twenty times as high, to learn faster",
                "With batches of four that is one of the ruined streams of part 6; single patients are worse.",
            ),
            Option("never look at the statistics again", "The shift is real and costs accuracy every day."),
        ),
    ),
)
