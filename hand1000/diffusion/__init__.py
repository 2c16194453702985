"""Former module names, imported by the code of models that version 0.1.0 registered; removed after one release."""
