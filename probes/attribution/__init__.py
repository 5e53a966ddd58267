"""Feature attribution that must earn its display: methods, their grades, and the rule by which one is shown.

``units`` is what is explained and how parts of it are taken away; ``methods`` the table of published methods, which
captum and shap compute; ``faithfulness``, ``sanity`` and ``agreement`` grade them; ``probe`` chooses on one half of the
samples, confirms on the other, and shows or refuses.
"""
