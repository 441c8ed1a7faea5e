"""What a task is: its settings, its data, its loss, its evaluation; and a user's file that declares one."""
