"""One recorded call, judged aloud: what each rule saw, and why the verdict is this one."""
