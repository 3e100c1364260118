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
        "Patients come sorted by disease, one clinic after another, and a BatchNorm network fails. Which change "
        "can help, without labels?",
        (
            Option(
                "EATA: learn only from reliable, non-redundant patients",
                "It chooses whose gradient counts. The statistics are still those of a batch of one class, and "
                "they do the damage.",
            ),
            Option(
                "a periodic reset of the weights",
                "It brings back the weights, not the statistics: those are measured anew on each batch.",
            ),
            Option(
                "the stored statistics; LAME may add to them",
                "Normalising a batch of one class centres away what told it apart, so leave the batch's "
                "statistics alone. LAME then makes neighbours agree: on the sorted streams of part 9 it was above "
                "its source, in part 7 that could not be shown; where the source is mostly wrong, they can agree "
                "on errors.",
                right=True,
            ),
            Option("larger batches of the same clinic", "A larger batch of one class is still of one class."),
        ),
    ),
    Question(
        "You take EATA from an ImageNet repository, with its redundancy threshold of 0.05, to a question of two "
        "classes. What happens?",
        (
            Option(
                "It learns faster, because two classes are easy",
                "It hardly learns at all. Compute the cosine of (1, 0) and (0.5, 0.5).",
            ),
            Option(
                "After the first batch nearly every sure patient counts as redundant, and it stands still",
                "The cosine of a sure answer and a uniform average is 1 / sqrt(K), here 0.71. It then equals its "
                "BN control, and a table that shows it 'stable' shows it asleep.",
                right=True,
            ),
            Option(
                "It collapses to one class",
                "A method that does not move cannot collapse; that is the trap, it looks safe.",
            ),
            Option("Nothing: thresholds are dimensionless", "This one depends on the number of classes."),
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
