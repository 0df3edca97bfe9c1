"""Images: decoding, entity images, regions, augmentation."""
