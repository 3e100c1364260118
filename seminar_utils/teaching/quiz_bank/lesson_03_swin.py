"""Quiz of lesson 03: Swin."""

from .base import Option, Question

QUESTIONS = (
    Question(
        "You double both sides of an image. The work BETWEEN tokens in one Swin stage grows",
        (
            Option("not at all, the window keeps its size", "There are more windows, each costs what it cost."),
            Option(
                "about 4 times",
                "Four times the tokens, and each is compared with the same M^2 others: linear in the area.",
                right=True,
            ),
            Option("about 16 times", "That is global attention, where every token meets every token."),
            Option("2 times", "The area of an image grows with the square of its side."),
        ),
    ),
    Question(
        "Why is there a mask in the shifted block?",
        (
            Option(
                "So that padding is not seen",
                "It does not hide padding: in Swin zeros that complete a map do attend and are attended to.",
            ),
            Option(
                "Because the map is rolled, and windows at the rim hold pieces from opposite sides of the image",
                "The roll keeps all windows the same size; the mask undoes the neighbourhood that it invents.",
                right=True,
            ),
            Option("So that tokens do not see the future", "That is the causal mask of a language model."),
            Option("It makes the block cheaper", "The masked pairs are computed like all others."),
        ),
    ),
    Question(
        "A stage has two blocks and no shift at all. After them, a token has information from",
        (
            Option(
                "its own window only",
                "Windows never exchange anything, however many blocks there are, until a merge joins them.",
                right=True,
            ),
            Option("its window and the eight around it", "Nothing crosses a border: there is no overlap."),
            Option("the whole map", "That would need global attention, or shifts and more blocks."),
            Option("itself only", "Inside a window attention is complete."),
        ),
    ),
    Question(
        "A window has 7 x 7 tokens. How many learnt numbers does the relative position bias have for one head?",
        (
            Option("49", "One for each place would be an absolute position; the bias belongs to pairs."),
            Option("2401", "That is the number of pairs, and many of them have the same offset."),
            Option(
                "169",
                "Offsets run from -6 to 6 in both directions: 13 x 13, shared by all pairs with the same offset.",
                right=True,
            ),
            Option("13", "Rows and columns are counted together, not one after the other."),
        ),
    ),
    Question(
        "You merge the four neighbours in the order of reading and load official weights. You get",
        (
            Option("an error about shapes", "The shapes agree, which is the trap."),
            Option(
                "no error, and other answers",
                "The weights of the upper right neighbour are applied to the lower left one. Only a comparison "
                "with a reference shows it.",
                right=True,
            ),
            Option("the same answers, since a linear layer follows", "Its columns belong to given places."),
            Option(
                "the transposed image, so a flip repairs it",
                "A whole transposition would also change windows and biases.",
            ),
        ),
    ),
    Question(
        "A map of 14 x 14 tokens meets windows of 4, so Swin pads it to 16 x 16. The padded tokens",
        (
            Option("are masked", "Neither torchvision's nor Microsoft's code masks them."),
            Option(
                "are zeros that get keys and values from the biases, and take part in the softmax",
                "A real token at the rim gives some of its attention to nothing. Prefer sizes that windows tile.",
                right=True,
            ),
            Option("repeat the border", "That is another kind of padding; here they are zeros."),
            Option("raise an error", "It runs without a word."),
        ),
    ),
)
