"""The line by which every start of Python adds our trainers to nnU-Net's ``nnUNet_extTrainer``.

Python runs the lines of a file FILE.pth in site-packages that begin with ``import``. setup.py reads
this module before the package can be imported, so it imports nothing.
"""

FILE = "semi_nnunet.pth"
IN_SITE_PACKAGES = "os.path.join(sitedir, 'semi_nnunet', 'discovery', 'trainers')"


def startup_line(folder: str) -> str:
    """Return the line, which keeps the folders that the user named, and names ours once.

    It has no comprehension, because those would not see its variables.

    Args:
        folder: of the trainers, as an expression in Python; ``sitedir`` is the folder of the file.
    """
    return "; ".join(
        (
            "import os",
            f"semi_nnunet_ours = {folder}",
            "semi_nnunet_others = os.environ.get('nnUNet_extTrainer', '')",
            "os.environ['nnUNet_extTrainer'] = semi_nnunet_others "
            "if semi_nnunet_ours in semi_nnunet_others.split(os.pathsep) "
            "else (semi_nnunet_ours + os.pathsep + semi_nnunet_others).rstrip(os.pathsep)\n",
        )
    )
