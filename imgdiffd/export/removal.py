"""The names of the published Img-Diff dataset's object removal; its question is `method.removal.QUESTION`."""

JSON_NAME = "img_diff_object_removal.json"
IMAGE_FOLDER = "object_removal"
