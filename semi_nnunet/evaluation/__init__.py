"""How good a segmentation is: metrics per case and class, tables, paired comparison."""
