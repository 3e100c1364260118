"""Quiz of lesson 04: CLIP."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "The network knows size, tone, place and scanner already. In a batch of 64 pairs every image has to find "
        "its caption, and no two captions of the batch differ in the type of the lesion alone. What does this "
        "batch teach about the type?",
        (
            Option("As much as any other", "To find the right caption, the words that it knows are enough here."),
            Option(
                "Nothing: what it knows already tells the captions apart",
                "A contrast can only teach what is needed to win it. That is why negatives decide what is learnt. "
                "While the other words are unknown, the same batch would pay for the type too.",
                right=True,
            ),
            Option(
                "More than a random batch", "A random batch holds some near misses in the type, this one none."
            ),
            Option(
                "It makes the features forget the type", "There is no push against the type, only none for it."
            ),
        ),
    ),
    Question(
        "The loss is the mean of two cross-entropies. Why two?",
        (
            Option("One for each tower", "Both go through both towers."),
            Option(
                "An image must find its caption, and a caption its image",
                "Rows and columns of the same matrix. A matrix can be right in all rows and wrong in a column.",
                right=True,
            ),
            Option("The second one is weight decay", "Weight decay is in the optimiser and no cross-entropy."),
            Option(
                "Two captions of each image are used",
                "Each image has one caption in the batch; CLIP samples one if there are several.",
            ),
        ),
    ),
    Question(
        "Why is the learnt factor exp(s) clamped to at most 100, and when?",
        (
            Option("Before the forward pass, so that the loss is finite", "Cosines times 100 give a finite loss."),
            Option(
                "After the optimiser's step, because easy pairs can always lower the loss by a larger factor",
                "The step is what moves s. The paper found that the limit prevents instability.",
                right=True,
            ),
            Option("Inside the softmax, so that it sums to one", "A softmax sums to one with any factor."),
            Option(
                "Never: it is a constant, 1 / 0.07",
                "That is only where it starts; it is learnt with all other weights.",
            ),
        ),
    ),
    Question(
        "The text tower may look back only. Which position knows the whole caption?",
        (
            Option("The start token", "It stands first and sees only itself."),
            Option("Every position", "A token sees itself and those before it."),
            Option("The last column of the tensor", "It may, but for short captions it is padding after the end."),
            Option(
                "The end token",
                "It stands after the last word. It has the largest id, so ids.argmax() finds it.",
                right=True,
            ),
        ),
    ),
    Question(
        "Zero-shot accuracy rises by several points when you try twenty wordings on the test set and report the "
        "best one. What is wrong with the number?",
        (
            Option(
                "Nothing: no weight was trained", "The choice of a wording is training, with twenty candidates."
            ),
            Option(
                "The wording was chosen by the test labels",
                "Choose it on validation data, or average all twenty as an ensemble, and say so.",
                right=True,
            ),
            Option("Prompts must be complete sentences", "They only have to be like the training captions."),
            Option("Zero-shot allows one wording only", "Several are allowed; how they are chosen matters."),
        ),
    ),
    Question(
        "You ask for 'no bright lesion' and the model returns bright lesions. The reason is most likely that",
        (
            Option(
                "nothing in its training captions ever depended on 'no'",
                "A word is understood only if getting it wrong once cost something. Here it is not even in the "
                "vocabulary.",
                right=True,
            ),
            Option(
                "a causal text tower cannot see negations", "It could: the 'no' stands before what it negates."
            ),
            Option("the temperature is too high", "A positive factor does not change which image is first."),
            Option("the image tower is too small", "The image is not what was misunderstood."),
        ),
    ),
)
