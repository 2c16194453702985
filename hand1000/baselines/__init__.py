"""What Hand1000 is compared with: Imagic and HandRefiner, each a system that works on another system's pictures."""
