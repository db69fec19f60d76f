"""What must not change: sentinels, the files and packs they come from, and checks of them."""
