//! linc-tile
