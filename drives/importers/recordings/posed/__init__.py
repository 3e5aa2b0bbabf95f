"""Data sets of camera images with poses of the car: nuScenes and nuPlan."""
