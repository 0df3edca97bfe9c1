"""Images: decoding, entity images, image-text pairs, augmentation."""
