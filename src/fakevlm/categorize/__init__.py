"""Categories of images whose source has none (paper, section 3.2, "Data Pre-Processing"): EVA-02 through timm."""
