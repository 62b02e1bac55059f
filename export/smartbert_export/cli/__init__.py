"""The commands smartbert-export and smartbert-verify; torch is imported only when it is needed."""
