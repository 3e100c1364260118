"""Quiz of lesson 14: prompt adaptation."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "CoOp's learnt context lies, vector by vector, nearest to the words 'lower', 'a', 'dark'. What follows?",
        (
            Option(
                "The classifier looks for dark lesions", "The nearest word may be far away, and it was not chosen."
            ),
            Option(
                "Little: a nearest word exists for any vector; look at the distance and try the words themselves",
                "A random vector has a nearest word too. Put the words in its place and measure again.",
                right=True,
            ),
            Option("The training failed", "A context need not be words: it may go anywhere in the space."),
            Option("The tokenizer is too small", "A larger one would name a nearer word, and prove as little."),
        ),
    ),
    Question(
        "On a new scanner 99% of the pseudo-labels reach DAPL's threshold. What does that say about them?",
        (
            Option("That about 99% are right", "Confidence is not accuracy, least of all under shift."),
            Option("That the shift is small", "A shifted network may be as sure as ever: look at its ECE."),
            Option(
                "Nothing about how many are right; that takes some labels",
                "The share kept and the share right are two numbers. Only the first can be seen without labels.",
                right=True,
            ),
            Option("That the threshold is too high", "Nearly all are kept: it is rather without effect."),
        ),
    ),
    Question(
        "Nothing is there but the first patient of a new hospital. Which of these can learn from that image?",
        (
            Option("DAPL", "It needs many unlabelled images of the new hospital, and labelled ones of the old."),
            Option(
                "CoOp",
                "It needs labels. Those of the old hospital would do, but they teach nothing of the new one.",
            ),
            Option(
                "TPT",
                "One image is enough: its own views teach it. Whether it helps is another question.",
                right=True,
            ),
            Option("Tip-Adapter", "It trains nothing, but it remembers labelled images."),
        ),
    ),
    Question(
        "In a batch no target image reaches the threshold. What should the target's loss be?",
        (
            Option("Not a number, so that one sees it", "One NaN in a step ruins every context from there on."),
            Option("The mean over all images", "Then the threshold would mean nothing when it matters most."),
            Option(
                "0, and the batch is counted",
                "Nothing is learnt from it, and the count tells how often that happened.",
                right=True,
            ),
            Option("The loss of the batch before", "That would be a step from images that were used already."),
        ),
    ),
    Question(
        "TPT makes the mean answer of an image's surest views surer. What should stand beside its accuracy?",
        (
            Option(
                "The calibration error",
                "It is rewarded for being sure, right or wrong: it may become surer and not be right more often.",
                right=True,
            ),
            Option("The number of context vectors", "That is the same in all of its runs."),
            Option("The loss on the labels", "There are none: it works without labels."),
            Option("The accuracy on the source's training images", "Those it never saw at test time."),
        ),
    ),
    Question(
        "With four labelled images of scanner C a learnt prompt is better there than zero-shot. What is still to "
        "be asked?",
        (
            Option("Nothing: the encoders are frozen", "The prompt is not, and it serves all scanners now."),
            Option(
                "What it answers on the old scanners, and what a linear probe makes of the same labels",
                "A prompt fitted to C may be worse on A and B; and the gain may be the labels', not the prompt's.",
                right=True,
            ),
            Option("Whether the context has a meaning in words", "It may have none and work."),
            Option(
                "Whether the test labels were used for early stopping: always allowed",
                "It is never allowed: labels of the test set choose nothing.",
            ),
        ),
    ),
)
