"""Quiz of lesson 05: DINO."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "Your DINO run shows: entropy of a teacher's distribution near ln K, loss near ln K, both flat. It has",
        (
            Option(
                "converged: the loss no longer falls",
                "A flat loss at exactly ln K is the loss of knowing nothing.",
            ),
            Option(
                "collapsed to the uniform distribution",
                "All prototypes tie for every image. Sharpening was too weak against the centring.",
                right=True,
            ),
            Option(
                "collapsed to one prototype",
                "Then both entropies would be near 0, and the loss as well.",
            ),
            Option("too high a learning rate", "That may be the cause, but it is not what the two entropies say."),
        ),
    ),
    Question(
        "What does centring do, alone, without a low teacher temperature?",
        (
            Option("It prevents both collapses", "Each of the two needs the other."),
            Option("It makes the distributions sharper", "Sharpening is the temperature's work."),
            Option("Nothing, as softmax ignores shifts", "A shift by ONE number, yes; the centre has K of them."),
            Option(
                "It keeps one prototype from winning everywhere, and pushes towards the uniform distribution",
                "Subtracting the mean takes away what all images share; nothing then asks for a decision.",
                right=True,
            ),
        ),
    ),
    Question(
        "Why are pairs left out in which teacher and student see the same crop?",
        (
            Option(
                "Such a pair can be satisfied without knowing anything of the picture's content",
                "Same pixels, nearly the same network: agreement comes for free. The task lies in ANOTHER view.",
                right=True,
            ),
            Option("To save time", "Two of the pairs would hardly be noticed."),
            Option("Because the teacher has no gradient", "It has none for any pair."),
            Option("Because local crops are smaller", "Local crops are never seen by the teacher at all."),
        ),
    ),
    Question(
        "The teacher of DINO is",
        (
            Option("a larger network trained before", "That is ordinary distillation. Here it starts as a copy."),
            Option("the student of the last step", "With momentum 0 it would be; the paper's starts at 0.996."),
            Option(
                "a moving average of the student's weights, which gets no gradient",
                "It averages many past students, and is usually better than the present one.",
                right=True,
            ),
            Option("trained by gradients on the global crops", "No gradient ever reaches it."),
        ),
    ),
    Question(
        "Your encoder reaches 0.60 by kNN. Before you praise the pre-training you look at",
        (
            Option("the training loss", "It depends on temperature and K, and says nothing about your classes."),
            Option("the attention maps", "A picture that looks right is no measurement."),
            Option("the number of parameters", "The random network has as many."),
            Option(
                "the same probe on raw pixels and on the same network with random weights",
                "Both cost nothing and are often surprisingly good; only what lies above them was learnt.",
                right=True,
            ),
        ),
    ),
    Question(
        "Your views differ in brightness and colour by a random jitter. What will the features do?",
        (
            Option("Learn colours better", "Two views that must agree have different colours."),
            Option("Nothing in particular", "The choice of views is nearly all the supervision there is."),
            Option(
                "Ignore what the augmentation changes, whether you need it or not",
                "Invariance is what the pairs ask for. If tone is your diagnosis, you have just trained it away.",
                right=True,
            ),
            Option("Collapse", "It makes agreement harder; collapse it need not be."),
        ),
    ),
)
