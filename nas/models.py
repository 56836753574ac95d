"""The networks of this project as models of timm: after `import nas.models`, timm knows `nas_network`.

    import timm
    import nas.models

    model = timm.create_model("local-dir:/path/to/export/timm", pretrained=True, num_classes=7, drop_path_rate=0.1)

The folder is what `python -m nas.export RUN --pick 3 --to timm` writes. Networks that timm has itself need no import.
"""

from nas.exporting.registered import nas_network

__all__ = ["nas_network"]
