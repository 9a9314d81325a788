"""What keeps data safe: verification, retention, space. Works on run folders, never on one being written."""
