//! Records in all forms.
