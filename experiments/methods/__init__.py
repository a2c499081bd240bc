"""Every objective on one teacher and one student."""
