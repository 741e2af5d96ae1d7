"""The names and the question of the published Img-Diff dataset's object replacement; its removal is beside this."""

JSON_NAME = "img_diff_object_replacement.json"
IMAGE_FOLDER = "object_replacement"
QUESTION = (
    "Analyse the left image and the right image (separated by the black vertical bar). What is the difference between "
    "the red bounding box area in each image? Answer the question in a few concise sentences."
)
