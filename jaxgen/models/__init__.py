"""The architectures, a file each: its modules, its recipe, and what one does with a trained one."""
