"""medseg: from the hospital's DICOM to a validated model and back, in one tool."""
__version__ = "0.1.0"
