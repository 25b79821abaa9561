"""The renderer: from a patient, an exposure and lesions to the pixels of a radiograph.

Images are built as a sum of attenuations along the beam, in centimetres of water, and then exposed. Only sums,
products, quotients, square roots, comparisons and integer random numbers occur, which IEEE 754 rounds exactly, so that
the same study has the same pixels on every machine.

Coordinates are fractions of the image side: ``x`` from the left, ``y`` from the top. On a frontal image the patient's
right is on the left.
"""
