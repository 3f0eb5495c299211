"""`fovbench demo`: the main job on clips that it makes."""
