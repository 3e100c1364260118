"""Quiz of lesson 13: labels as distributions, neighbours, and what meta-training practises."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "The model says 0.55 / 0.45. You take its own soft answer as the target of a cross-entropy step. The step",
        (
            Option(
                "makes it surer of the first class",
                "That is what the HARD label does: it forgets that the answer was a close call.",
            ),
            Option(
                "does nothing at all",
                "The gradient in the logits is prediction - target, and the two are equal. A soft label teaches "
                "only where it differs from the prediction, so somebody else has to make it.",
                right=True,
            ),
            Option("makes it less sure", "Only a target that is flatter than the prediction would."),
            Option("depends on the learning rate", "Any rate times a gradient of zero is zero."),
        ),
    ),
    Question(
        "What do neighbours add to the label of one image?",
        (
            Option(
                "its true class, if enough of them are there",
                "No label of the new scanner comes in by any door: the neighbours are unlabelled as well.",
            ),
            Option(
                "how the classes look on this scanner, as far as the pseudo-labels of the batch tell",
                "The prototypes are means of features weighted by pseudo-labels; w is made from them.",
                right=True,
            ),
            Option(
                "more images to compute BatchNorm statistics from",
                "The batch does that with or without a label network. It is the control of this lesson.",
            ),
            Option("a vote of the most similar training patients", "No training image is at hand at test time."),
        ),
    ),
    Question(
        "In meta-training the posterior q(w | X', Y') sees true labels, at test time nobody does. "
        "The KL term is there to",
        (
            Option(
                "keep the weights small",
                "It compares two distributions of w, not weights with zero.",
            ),
            Option(
                "make the prior, which sees pseudo-labels only, say what the posterior says",
                "At test time w is drawn from the prior. Without the KL it would never have learnt anything.",
                right=True,
            ),
            Option("make the labels harder", "It says nothing about how sure the labels are."),
            Option(
                "let labels of the target scanner in",
                "The meta-target is a SOURCE scanner that plays the unknown one: its labels were there already.",
            ),
        ),
    ),
    Question(
        "A single step on the mean loss of S drawn soft labels equals",
        (
            Option(
                "a step on the label at the mean of w",
                "The softmax of a mean is not the mean of the softmaxes.",
            ),
            Option(
                "a step on the mean of the S labels",
                "Cross-entropy is linear in its target. The draws smooth the label; one step cannot tell "
                "them apart from their mean.",
                right=True,
            ),
            Option("S steps, one for each label", "After the first step the gradient is taken elsewhere."),
            Option("a step on the most likely label", "That one is hard; the mean of the draws is soft."),
        ),
    ),
    Question(
        "Neighbour labels score higher than the source model on scanner C. Before crediting them you compare with",
        (
            Option("the numbers in the paper", "Other data, another network, and no public code."),
            Option(
                "Tent on the plain network", "Another network: the difference would mix training and adaptation."
            ),
            Option(
                "BatchNorm statistics of the same meta-trained network",
                "It changed in meta-training, and the statistics alone repair much. What is left over is what "
                "the labels did.",
                right=True,
            ),
            Option("neighbour labels with a larger rate", "A rate chosen by which labels? See lesson 09."),
        ),
    ),
    Question(
        "Patients come sorted by class, and a batch holds one class only. The neighbours",
        (
            Option(
                "are then most helpful, since all agree",
                "They agree in class, but the pseudo-labels do not know it: batch statistics spread the one class "
                "over all, and prototypes of absent classes are made from its images.",
            ),
            Option(
                "mislead: images of the one class are shared out as prototypes of all",
                "A prototype needs members of its class. Nothing in the batch says which classes are missing.",
                right=True,
            ),
            Option("do not matter, each label depends on its own image", "It depends on w, and w on the batch."),
            Option("are left out by the method", "Nothing in it notices the order."),
        ),
    ),
)
