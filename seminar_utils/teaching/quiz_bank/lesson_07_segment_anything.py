"""Quiz of lesson 07: prompts, ambiguity, the two-way decoder, and what a box already gives away."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "A point lies on a lesion, which lies in an organ. Why does SAM answer with three masks?",
        (
            Option("It runs three networks and votes", "There is one decoder with several mask tokens."),
            Option(
                "To let the user pick a border that is thin, middle or thick", "They may be different objects."
            ),
            Option(
                "One point fits several objects, and the mean of lesion and organ would be neither",
                "So only the best of the three is taught, and each may settle on another reading.",
                right=True,
            ),
            Option("The first is a draft that the others refine", "All three come out of one pass, side by side."),
        ),
    ),
    Question(
        "In training only the mask with the lowest loss gets a gradient. At test time the mask is chosen by",
        (
            Option("the lowest loss", "The loss needs the true mask; a user has none."),
            Option(
                "the guessed IoU, an output that was trained to predict each mask's true overlap",
                "Or by the user. The guess may be wrong, and was only trained where training images came from.",
                right=True,
            ),
            Option("its position: the first one", "The first token is kept for prompts that are not ambiguous."),
            Option("the largest area", "Then a lesion would never be chosen."),
        ),
    ),
    Question(
        "Two hundred clicks on one image. How often does the image encoder run?",
        (
            Option("Two hundred times", "Then a click would take as long as the first one."),
            Option("Never, the decoder reads pixels", "It reads the encoder's embedding."),
            Option(
                "Once: prompts enter only the decoder, which takes milliseconds",
                "That is why nearly all the weights can sit in the encoder and a click still answers at once.",
                right=True,
            ),
            Option("Once for each object", "The embedding knows nothing of objects asked for later."),
        ),
    ),
    Question(
        "In a two-way block, 'image to token' attention takes its queries from",
        (
            Option(
                "the pixels of the embedding: each asks the few tokens what it is part of",
                "After it the embedding itself depends on the prompt, so the mask can be read off it.",
                right=True,
            ),
            Option("the prompt tokens", "That is the other direction, token to image."),
            Option("the mask tokens only", "They are among the tokens that answer, not those that ask."),
            Option("the original image", "The decoder never sees it."),
        ),
    ),
    Question(
        "A paper reports Dice 0.85 for segmentation by tight boxes. Which number do you ask for first?",
        (
            Option("The accuracy of the pixels", "It is high for any small object, even for an empty mask."),
            Option("The number of parameters", "Interesting, but it does not say whether 0.85 is good."),
            Option(
                "Dice of the filled boxes, on the same boxes",
                "A filled ellipse's box has about 0.88. A tight box is made from the truth and gives much away.",
                right=True,
            ),
            Option("Dice of a second model of the same kind", "Both may be no better than the box."),
        ),
    ),
    Question(
        "On a new scanner the masks become poor while the guessed IoU stays high. You",
        (
            Option(
                "keep those masks whose guess is above 0.9", "On the new scanner that filter lets poor ones by."
            ),
            Option(
                "do not use the guess as an alarm there before it was compared with true masks of that scanner",
                "It is a network's output like any other, trained where the images looked familiar.",
                right=True,
            ),
            Option("conclude that the true masks are wrong", "Possible for one image, not for a whole scanner."),
            Option("add up the guesses of the three masks", "They are no probabilities of disjoint events."),
        ),
    ),
)
