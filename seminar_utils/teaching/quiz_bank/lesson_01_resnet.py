"""Quiz of lesson 01: residual networks and BatchNorm."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "In He et al.'s figure 1, a plain network of 56 layers has a higher error than one of 20 layers, "
        "on the TRAINING set as well. This shows that",
        (
            Option("the deeper network overfits", "Overfitting lowers the training error. Here it is higher."),
            Option(
                "the deeper network is harder to optimise",
                "It could copy the shallow one and add identities, yet training does not find that.",
                right=True,
            ),
            Option("the deeper network cannot express the solution", "It can: 20 layers and 36 identities."),
            Option(
                "the data set is too small",
                "More data would change the gap between training and test, "
                "not the failure to fit the training set.",
            ),
        ),
    ),
    Question(
        "A residual unit computes relu(F(x) + x). If the best thing it can do is nothing, its weights have to",
        (
            Option("form an identity matrix", "That is what a plain layer would have to learn."),
            Option("grow without bound", "No: a small F leaves x nearly alone."),
            Option(
                "go to zero",
                "Then F(x) = 0 and (as x comes out of a relu) x passes unchanged: "
                "doing nothing is the easy default.",
                right=True,
            ),
            Option("equal those of the unit before", "Nothing ties the units' weights together."),
        ),
    ),
    Question(
        "What does the `+ x` do to the gradient on its way back?",
        (
            Option(
                "It adds a direct way: d(F + x)/dx = dF/dx + 1",
                "Even where dF/dx is tiny, the 1 carries the gradient to earlier layers.",
                right=True,
            ),
            Option(
                "It doubles the gradient in each unit",
                "The 1 is added to dF/dx; only if that is 1 too, the sum is 2.",
            ),
            Option(
                "It stops the gradient at the shortcut",
                "A shortcut is an ordinary addition, and gradients run through both summands.",
            ),
            Option(
                "Nothing, it acts in the forward direction only",
                "Every forward operation has its derivative on the way back.",
            ),
        ),
    ),
    Question(
        "BatchNorm in training mode and in evaluation mode differ in that",
        (
            Option("gamma and beta are used in training only", "They are used in both."),
            Option(
                "evaluation normalises with stored averages of training batches",
                "So the answer for one "
                "patient does not depend on the neighbours in the batch, but it does depend on the scanner "
                "that the averages come from.",
                right=True,
            ),
            Option("evaluation leaves out the normalisation", "It normalises, with other numbers."),
            Option("training keeps no running statistics", "It is training that collects them."),
        ),
    ),
    Question(
        "A new scanner makes all images darker and flatter. Which part of a trained ResNet is wrong first?",
        (
            Option(
                "The stored means and variances of the BatchNorm layers",
                "They describe activations of "
                "the old scanner, so the normalised activations are off centre from the first layer on. "
                "Lesson 11 starts here.",
                right=True,
            ),
            Option("The last linear layer", "It gets wrong features, but the trouble starts long before."),
            Option("The residual connections", "An addition has no memory of a scanner."),
            Option(
                "The kernels of the first convolution",
                "Edges still look like edges; what no longer fits is the scale of their answers.",
            ),
        ),
    ),
    Question(
        "Two stacked 3x3 convolutions see as far as one 5x5. For C channels in and out, why prefer the two?",
        (
            Option(
                "They need fewer weights and have a nonlinearity in between",
                "18 C^2 weights against 25 C^2, and a relu more.",
                right=True,
            ),
            Option("They see further than one 5x5", "Both see 5 pixels: 1 + 2 + 2."),
            Option("They need no padding", "Each of them needs a padding of 1 to keep the size."),
            Option(
                "They compute exactly the same function",
                "Without the relu between them they could only "
                "form some 5x5 kernels; with it they are no single convolution at all.",
            ),
        ),
    ),
)
