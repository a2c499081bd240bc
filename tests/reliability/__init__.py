"""Kills trainings, damages their files, fills their disks, and gives damaged files to all readers."""
