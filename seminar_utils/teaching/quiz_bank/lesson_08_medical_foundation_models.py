"""Quiz of lesson 08: foundation models meet medicine."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "You load MedSAM's weights into SAM's code and keep SAM's preprocessing. You get",
        (
            Option("an error, the shapes differ", "MedSAM is a SAM ViT-B: every tensor fits."),
            Option(
                "masks that are worse, and no message",
                "MedSAM was trained on [0, 1], squashed; SAM's code gives mean 0, deviation 1, padded. Nothing "
                "complains.",
                right=True,
            ),
            Option("the same masks", "The encoder reads other numbers than it was trained on."),
            Option(
                "better masks, because SAM's pipeline is newer", "It is the older one; and age is no argument."
            ),
        ),
    ),
    Question(
        "A method reaches Dice 0.80 with tight boxes on round lesions. The first thing to ask is:",
        (
            Option("How many parameters has it?", "Worth asking, but it says nothing about this number."),
            Option(
                "What is the Dice of the filled box?",
                "A tight box around a disc overlaps it with Dice 2 * pi / (4 + pi), about 0.88. It is what the "
                "user has drawn, not what the model has found.",
                right=True,
            ),
            Option("Is 0.80 above 0.5?", "Dice has no chance level at 0.5."),
            Option("Which optimiser was used?", "It does not change what the number means."),
        ),
    ),
    Question(
        "A CT slice is shown to MedSAM with window level 40, width 400. A nodule in the lung (-50 HU, air around "
        "it at -850 HU)",
        (
            Option(
                "looks the same as in a lung window", "The lung window keeps -1350 to 150, this one -160 to 240."
            ),
            Option("is lost, it is below the window", "-50 lies inside -160 to 240."),
            Option(
                "is seen, but a faint part of it at -300 HU has become as black as air",
                "All below -160 becomes one value. What the window cuts off no model can find.",
                right=True,
            ),
            Option("is seen exactly, since the network learns its own window", "It gets 8 bits after the cut."),
        ),
    ),
    Question(
        "LoRA with rank r on a layer (out, in) at test time costs",
        (
            Option("r times the layer", "The correction has r * (in + out) numbers, not r * in * out."),
            Option(
                "nothing, when W + (alpha / r) B A was written into the weight",
                "Merged and unmerged give the same numbers; the parity cell shows it.",
                right=True,
            ),
            Option("twice the layer", "Only if it is left unmerged with a very large r."),
            Option("memory for both models", "Only A and B are stored beside the old weights."),
        ),
    ),
    Question(
        "Ten labelled images of a new scanner. After full fine-tuning Dice rises there and falls on the old ones. "
        "That is called",
        (
            Option("overfitting", "Overfitting is training against test on the same data source."),
            Option("domain generalisation", "That would be good on scanners never seen."),
            Option(
                "forgetting; measure it before you replace the old model",
                "LoRA can be switched off again, a fully tuned network must be kept twice.",
                right=True,
            ),
            Option("calibration", "That concerns confidences."),
        ),
    ),
    Question(
        "An independent comparison (arXiv 2408.08058) looked at BiomedCLIP with few labelled images. It was best",
        (
            Option("at any number of labels", "A fine-tuned ResNet-18 was similar beyond five images a class."),
            Option(
                "with very few labels only",
                "So try it when you have one to five images a class, and fit the small network beside it.",
                right=True,
            ),
            Option("never", "With very few labels it was."),
            Option("only with its own preprocessing switched off", "Preprocessing belongs to the checkpoint."),
        ),
    ),
)
