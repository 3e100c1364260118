"""Quiz of lesson 12: self-supervision at test time, alignment, the queue, and who may choose."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "A hospital has a network that was trained with labels alone. Can it use TTT with rotations?",
        (
            Option("Yes, at test time only images are needed", "Images are enough to adapt, not to prepare."),
            Option("Yes, a random rotation head will do", "Its gradient would know nothing about the images."),
            Option(
                "No: the rotation head has to be trained together with the classifier, before",
                "Test-time training starts at training time. That is its price.",
                right=True,
            ),
            Option("Only with labels of the new scanner", "Neither of the two tasks needs those at test time."),
        ),
    ),
    Question(
        "The gradients of the rotation loss and of the classification loss have a cosine of -0.2 on a batch. "
        "A small enough step down the rotation loss",
        (
            Option(
                "raises the classification loss of that batch",
                "To first order the change is minus the rate times the inner product, here a positive number.",
                right=True,
            ),
            Option("lowers both losses", "It lowers the rotation loss; the other follows the sign of the cosine."),
            Option("changes nothing, the heads are separate", "They share the encoder, and that is what moves."),
            Option("cannot be judged without the accuracy", "The loss is what a gradient speaks about."),
        ),
    ),
    Question(
        "TTT++ keeps mean and covariance of the source features because",
        (
            Option("they replace the labels of the new scanner", "They know nothing about any single patient."),
            Option("BatchNorm needs them", "BatchNorm has moments of its own, per channel of each layer."),
            Option(
                "the queue would be empty otherwise", "The queue holds features of the new scanner's patients."
            ),
            Option(
                "a clinic may hand over numbers where it may not hand over images",
                "And the moments hold the features where the frozen classifier expects them.",
                right=True,
            ),
        ),
    ),
    Question(
        "In the official code the queue hands out its storage itself and not a copy. Once it is full,",
        (
            Option("nothing happens, the values are the same", "The values change when the batch is written in."),
            Option(
                "the current batch counts twice and the oldest one not at all",
                "Once with gradient, once without: the moments of the batch pull harder than intended.",
                right=True,
            ),
            Option(
                "gradients flow into past batches", "What is stored is detached, in the official code as well."
            ),
            Option("the labels leak", "No label is near the queue. The labels leak elsewhere: see part 10."),
        ),
    ),
    Question(
        "The patients of one day all have the same disease. The alignment with the source moments then",
        (
            Option("is as good as on any other day", "The source moments are those of all classes together."),
            Option(
                "becomes exact, as the covariance is smaller", "A smaller covariance is a distance to be removed."
            ),
            Option(
                "pulls that day's features towards a mixture of classes that did not come",
                "It assumes classes come as in training: a shift of labels is not told from a scanner.",
                right=True,
            ),
            Option("is protected by the queue", "Only if the queue remembers days with other diseases."),
        ),
    ),
    Question(
        "A paper adapts for up to 500 epochs and reports the epoch with the lowest test error. An honest report",
        (
            Option(
                "is the same number with an interval", "An interval does not undo a choice made by test labels."
            ),
            Option("averages over all epochs", "That is another method, and nobody would deploy it."),
            Option("uses more epochs", "More candidates make the best of them look better still."),
            Option(
                "fixes the number of epochs before, or calls the number an oracle",
                "No clinic has the labels. The distance between the two is what the labels gave.",
                right=True,
            ),
        ),
    ),
)
