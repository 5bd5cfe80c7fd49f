"""The views of `penstock top`: each file names its columns and makes the rows of one view."""
