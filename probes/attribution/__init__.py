"""Feature attributions, displayed only if they pass tests: methods, their grades, and the display rule.

``units`` is what is explained and how parts of it are taken away; ``methods`` the table of published methods, which
captum and shap compute; ``faithfulness``, ``sanity`` and ``agreement`` grade them; ``probe`` chooses on one half of the
samples, confirms on the other, and shows or refuses.
"""
