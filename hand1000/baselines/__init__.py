"""Methods that Hand1000 is compared with: Imagic and HandRefiner, which both edit another method's images."""
