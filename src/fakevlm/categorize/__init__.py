"""Sort images without a category (paper section 3.2, "Data Pre-Processing"): EVA-02 through timm."""
