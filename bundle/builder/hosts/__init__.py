"""What hosts need beside images: packages of the engine, wheels of the jump host."""
