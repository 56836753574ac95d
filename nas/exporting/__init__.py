"""Export: networks as folders of checked files that work without this project where the format allows it."""
