"""What a training tells people: `report.html`, PNG plots, a model card, and the figures as JSON.

gather → data → charts → page (drawing, details, style, markup), pictures, model_card → files
"""
