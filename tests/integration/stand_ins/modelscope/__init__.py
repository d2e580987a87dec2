"""Stands in for ModelScope: as much of it as its trainers show to who builds one."""
