"""The kinds of what a source says that cannot be used, and what a person can do about each."""

UNKNOWN_FILE = "file not understood"
NO_FILE = "link without a file"
OUTER_LINK = "link out of the folder"
BAD_NAME = "file name that is not plain UTF-8 text"
NEEDS_HEIF = "image that needs pillow-heif"
OTHER_FOLDER = "image outside the folders that are read"
UNKNOWN_COLUMN = "column not read"
SECOND_CAPTION = "caption in a further column"
NO_IMAGE = "line without an image"
BAD_LINE = "line not understood"
BAD_BOX = "box not usable"
BAD_CAPTION = "caption not usable"
TWO_BOXES = "boxes contradict"
TWO_PEOPLE = "people contradict"
TWO_GESTURES = "gestures contradict"
UNKNOWN_GESTURE = "gesture not known"
BAD_PERSON = "person not understood"
NO_PERSON = "image without a person beside images with one"
IN_BOTH_SPLITS = "test image of a person who is in training"
BESIDE_PIXELS = "fault beside the pixels of an image"
REPEATS = "repeats of a folder not used"
MEMBER = "member of an archive not used"
SECOND_ANNOTATION = "second annotation of an image"
BESIDE_ANNOTATIONS = "fact in a metadata file beside annotations"

REMEDIES: dict[str, str] = {
    UNKNOWN_FILE: "remove it, or bring it into a layout of docs/data.md",
    NO_FILE: "restore the file that it leads to, or remove it",
    OUTER_LINK: "nothing if the link is yours: it is followed; remove those of a folder that others made",
    BAD_NAME: "rename it",
    NEEDS_HEIF: "install it: pip install 'hand1000[heic]'",
    OTHER_FOLDER: "move it into the folder of its gesture",
    UNKNOWN_COLUMN: "rename it if it holds a caption (text), a person (user_id), a gesture or a bbox",
    SECOND_CAPTION: "of text, prompt, caption and captions the first that is filled counts; keep one",
    NO_IMAGE: "add the image, correct file_name (with its folder), or remove the line",
    BAD_LINE: "correct the line; its image is skipped, since it may be of a person in training",
    BAD_BOX: "correct it to x, y, width, height relative to the image, or in pixels with data.bbox_format: pixels",
    BAD_CAPTION: "write the caption as text",
    TWO_BOXES: "keep one line; the image is used without a box",
    TWO_PEOPLE: "keep one line; the image is skipped, since it may be on both sides of the split",
    TWO_GESTURES: "keep one line; the image is skipped",
    UNKNOWN_GESTURE: "write a name that `hand1000 gestures` lists; the image is not used",
    BAD_PERSON: "write user_id as text or as a number; the image is skipped",
    NO_PERSON: "add its user_id; until then it counts as a person of its own, who may also be in the other split",
    IN_BOTH_SPLITS: "move all images of a person to one side; until then they are only trained on",
    BESIDE_PIXELS: "nothing if the image is upright; otherwise save it upright",
    REPEATS: "nothing: every image counts once, and steps are set by stage3.steps",
    MEMBER: "store it as a plain file with a plain relative name of at most 100 MB, once",
    SECOND_ANNOTATION: "keep one; the first is used",
    BESIDE_ANNOTATIONS: "correct HaGRID's annotation: of a metadata file beside it only the captions are read",
}
"""What a person can do about each kind of problem, in the order of reports."""
