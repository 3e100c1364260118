"""Quiz of lesson 02: the Vision Transformer."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "You halve the patch size of a ViT on the same image. The attention matrix of one head gets",
        (
            Option("2 times as many entries", "The side of the patch is halved in both directions."),
            Option(
                "4 times as many entries",
                "That is how the number of tokens grows; the matrix has tokens squared.",
            ),
            Option(
                "about 16 times as many entries",
                "4 times the tokens, hence 16 times the pairs: small patches are dear.",
                right=True,
            ),
            Option("as many entries as before", "The matrix is tokens by tokens, and there are more tokens."),
        ),
    ),
    Question(
        "You shuffle the patches of an image and do NOT add position embeddings. The class token at the end is",
        (
            Option("different, as attention depends on the order", "Attention sums over a set: it has no order."),
            Option(
                "the same",
                "Without positions a transformer sees a bag of patches. The positions are all "
                "it knows of the image's geometry.",
                right=True,
            ),
            Option(
                "different, as patches are embedded one after another",
                "Each patch is embedded by the same linear map, wherever it lies.",
            ),
            Option("undefined", "Nothing in the computation fails."),
        ),
    ),
    Question(
        "Why are the scores q . k divided by sqrt(d)?",
        (
            Option(
                "So that their variance does not grow with d and the softmax does not saturate",
                "A sum of d products of unit variance has variance d; a saturated softmax has almost no gradient.",
                right=True,
            ),
            Option("So that each row of weights sums to one", "The softmax does that with any scale."),
            Option("To save multiplications", "It is one operation more."),
            Option(
                "To make q and k unit vectors",
                "It divides by the same number whatever their lengths; unit vectors would give cosine similarity.",
            ),
        ),
    ),
    Question(
        "The patch embedding of a ViT is in code a Conv2d with kernel = stride = p. As a linear map it is",
        (
            Option(
                "different from a linear layer on flattened patches, because convolutions overlap",
                "With stride = kernel they do not overlap.",
            ),
            Option(
                "the same as a linear layer on flattened patches, up to the order of the weights",
                "Each patch meets the same weights once: the exercise `vit.patchify` is the proof.",
                right=True,
            ),
            Option("nonlinear, because convolutions have a relu", "A convolution alone is linear."),
            Option(
                "translation invariant, so positions are not needed",
                "It treats all patches alike; just therefore positions have to be added.",
            ),
        ),
    ),
    Question(
        "Dosovitskiy et al. find that ViT loses to ResNets on ImageNet-1k alone and wins after "
        "pretraining on JFT-300M. The usual reading is that",
        (
            Option("transformers need larger images", "The image size was comparable."),
            Option("convolutions cannot use more data", "They gain as well, only less from there on."),
            Option(
                "locality is built into a CNN, and a ViT has to learn it from data",
                "With little data a "
                "built-in prior helps, with much data it hardly matters: a point to remember for small "
                "medical sets.",
                right=True,
            ),
            Option(
                "a ViT has fewer parameters", "Fewer parameters would rather help with little data than with much."
            ),
        ),
    ),
    Question(
        "A bright spot in an attention map lies on the lesion. That shows",
        (
            Option(
                "that the model decided because of the lesion",
                "Weights say where values were taken from in "
                "one layer, not what moved the output. Cover the lesion and look whether the answer changes.",
            ),
            Option(
                "that this head took much of its value from there in this layer",
                "So much and no more: it is a hint to be tested by an intervention.",
                right=True,
            ),
            Option(
                "that the lesion was segmented",
                "The map has the grid of the patches and no notion of borders.",
            ),
            Option(
                "nothing, attention maps are random",
                "They are computed from content and repeatable; the "
                "claim must just not be larger than the evidence.",
            ),
        ),
    ),
)
