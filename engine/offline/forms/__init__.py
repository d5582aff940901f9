"""The forms in which stored responses come, one file each: what a record says -> rows of responses."""
