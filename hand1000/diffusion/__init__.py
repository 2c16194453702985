"""Former module names, which the code beside models registered by version 0.1.0 imports; gone after one release."""
