"""The promoter's rules, a module a version. One that logs still name is never changed, nor is what it imports."""
