"""Quiz of lesson 06: masked autoencoders."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "At mask ratio 0.75 the encoder of MAE reads, for 196 patches,",
        (
            Option("196 tokens, three quarters of them mask tokens", "Mask tokens enter in the decoder only."),
            Option(
                "the 49 visible patches and a class token",
                "That is why a large encoder is affordable: hidden patches cost it nothing.",
                right=True,
            ),
            Option("147 tokens, the hidden ones", "The hidden ones are what it must not see."),
            Option("49 patches at random places without positions", "Positions are added before masking."),
        ),
    ),
    Question(
        "Why does the loss count hidden patches only?",
        (
            Option("Because the decoder does not output visible ones", "It does output all patches."),
            Option("To save time", "The saving is a subtraction and a square: nothing."),
            Option(
                "Because the paper found the features slightly better so",
                "'Purely result-driven', about half a point; that copying needs no understanding is a reading.",
                right=True,
            ),
            Option("Because visible patches have no target", "Their pixels are known, so they could be one."),
        ),
    ),
    Question(
        "A MAE trained with normalised pixels paints a hidden patch in the right brightness. Then",
        (
            Option(
                "the model has guessed the brightness", "It never predicts brightness: the target has mean zero."
            ),
            Option(
                "the true patch's mean and spread were put back to draw the picture",
                "The picture is kinder than the model. Judge structure inside a patch, not its brightness.",
                right=True,
            ),
            Option(
                "the patch was visible", "For visible patches the same holds, but the question is of a hidden one."
            ),
            Option("the loss must be zero", "Brightness and contrast do not enter this loss at all."),
        ),
    ),
    Question(
        "`ids_restore` is the argsort of the argsort of the noise. It holds, for every patch of the image,",
        (
            Option(
                "its rank: the place where it stands in the shuffled list",
                "Reading the list at these places puts every patch back.",
                right=True,
            ),
            Option("the patch that has this rank", "That is the first argsort, the order itself."),
            Option("whether it is hidden", "That is the mask: rank at least `keep`."),
            Option("a random number", "It is a permutation, fixed by the noise."),
        ),
    ),
    Question(
        "A colleague reports: 'MAE is useless, kNN on its features is hardly better than on pixels.' You answer:",
        (
            Option(
                "kNN is the strictest test, so it is useless", "Strict about one thing: is distance meaningful?"
            ),
            Option("Use the decoder's output instead", "That is pixels again."),
            Option("Train with a lower mask ratio", "Possible, but nothing measured says so."),
            Option(
                "Nothing in MAE pulls a class together; measure a linear probe and fine-tuning as well",
                "Loss over pixels leaves distances to what changes pixels most; fine-tuning may re-weigh them.",
                right=True,
            ),
        ),
    ),
    Question(
        "You fine-tune MAE and train from scratch with 1% of the labels, three seeds. A fair comparison needs",
        (
            Option("the same learning rate for every layer in both", "Layer decay suits trained layers only."),
            Option(
                "the same labelled images, steps and test split for both, and a paired interval",
                "The seed's choice of images matters most with few labels, so it must be shared.",
                right=True,
            ),
            Option("the epoch that is best on the test split", "Then the test split is no test any more."),
            Option("ten times more steps for the one from scratch", "Steps are a matter of the budget: say both."),
        ),
    ),
)
