//! Applying what is asked of the directory group.
