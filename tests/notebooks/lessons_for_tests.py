"""Small lessons that the tests of the lesson machine make for themselves."""

from pathlib import Path

TITLE = "# %% [markdown]\n# # A lesson\n# Time: <!-- minutes --><!-- /minutes -->\n"
GOOD = """
# %%
import os
big = bytearray(200_000_000)
big[::4096] = b"x" * len(big[::4096])
print(os.environ["SEMINAR_PROFILE"], os.environ["SEMINAR_STATIC"])

# %% tags=["nbval-check-output"]
print("shape", (2, 3))
6 * 7

# %% slideshow={"slide_type": "slide"}
import matplotlib.pyplot as plt
plt.plot([1, 3, 2])
plt.show()
"""


def write_lesson(folder: Path, name: str, code: str = GOOD) -> Path:
    """Write `py/NAME.py` under `folder`; returns the folder."""
    (folder / "py").mkdir(parents=True, exist_ok=True)
    (folder / "py" / f"{name}.py").write_text(TITLE + code, encoding="utf-8")
    return folder
