"""What tfkd survives: kills, damage, full disks and inputs that lie."""
